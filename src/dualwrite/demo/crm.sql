-- The right side: Dataverse as a database of linked tables.
--
-- Every record has an id of its own, and lookups hold the id of the record that they point to.  What identifies a
-- record to people (a number or name, within a company) has a unique index.  Choices are numbers.

CREATE TABLE cdm_companies (
    cdm_companyid   TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    cdm_companycode VARCHAR(4) NOT NULL,
    cdm_name        VARCHAR(160)
);
CREATE UNIQUE INDEX cdm_companies_key ON cdm_companies (cdm_companycode);

CREATE TABLE transactioncurrencies (
    transactioncurrencyid TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    isocurrencycode       VARCHAR(3) NOT NULL,
    currencyname          VARCHAR(100),
    currencysymbol        VARCHAR(10),
    exchangerate          DECIMAL(23,10),
    currencyprecision     INTEGER NOT NULL DEFAULT 2
);
CREATE UNIQUE INDEX transactioncurrencies_key ON transactioncurrencies (isocurrencycode);

CREATE TABLE uoms (
    uomid                       TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_symbol                VARCHAR(20) NOT NULL,
    msdyn_externalunitclassname VARCHAR(40),
    msdyn_decimalprecision      INTEGER,
    msdyn_isbaseunit            BOOLEAN NOT NULL DEFAULT 0,
    msdyn_issystemunit          BOOLEAN NOT NULL DEFAULT 0,
    msdyn_systemofunits         INTEGER NOT NULL DEFAULT 192350000,
    name                        VARCHAR(20),
    msdyn_description           VARCHAR(100)
);
CREATE UNIQUE INDEX uoms_key ON uoms (msdyn_symbol);

CREATE TABLE msdyn_parties (
    msdyn_partyid                  TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_partynumber              VARCHAR(40) NOT NULL,
    msdyn_partytype                INTEGER NOT NULL DEFAULT 192350000,
    msdyn_namealias                VARCHAR(60),
    msdyn_nickname                 VARCHAR(100),
    msdyn_language                 INTEGER NOT NULL DEFAULT 192350015,
    msdyn_organizationname         VARCHAR(160),
    msdyn_organizationabccode      INTEGER NOT NULL DEFAULT 192350003,
    msdyn_numberofemployees        INTEGER,
    msdyn_organizationnumber       VARCHAR(40),
    msdyn_organizationphoneticname VARCHAR(100),
    msdyn_firstname                VARCHAR(50),
    msdyn_middlename               VARCHAR(50),
    msdyn_lastname                 VARCHAR(50),
    msdyn_lastnameprefix           VARCHAR(20),
    msdyn_initials                 VARCHAR(10),
    msdyn_professionaltitle        VARCHAR(60),
    msdyn_professionalsuffix       VARCHAR(60),
    msdyn_phoneticfirstname        VARCHAR(50),
    msdyn_phoneticlastname         VARCHAR(50),
    msdyn_phoneticmiddlename       VARCHAR(50),
    msdyn_gender                   INTEGER NOT NULL DEFAULT 192350001,
    msdyn_maritalstatus            INTEGER NOT NULL DEFAULT 192350000,
    msdyn_hobbies                  VARCHAR(255),
    msdyn_childrennames            VARCHAR(255),
    msdyn_anniversaryday           INTEGER,
    msdyn_anniversaryyear          INTEGER,
    msdyn_birthday                 INTEGER,
    msdyn_birthyear                INTEGER,
    msdyn_anniversarymonth         INTEGER NOT NULL DEFAULT 0,
    msdyn_birthmonth               INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX msdyn_parties_key ON msdyn_parties (msdyn_partynumber);

CREATE TABLE msdyn_taxgroups (
    msdyn_taxgroupid  TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_name        VARCHAR(10) NOT NULL,
    msdyn_company     TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_description VARCHAR(100)
);
CREATE UNIQUE INDEX msdyn_taxgroups_key ON msdyn_taxgroups (msdyn_name, msdyn_company);
CREATE INDEX msdyn_taxgroups_msdyn_company ON msdyn_taxgroups (msdyn_company);

CREATE TABLE msdyn_paymentdays (
    msdyn_paymentdayid TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_name         VARCHAR(10) NOT NULL,
    msdyn_company      TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_description  VARCHAR(100)
);
CREATE UNIQUE INDEX msdyn_paymentdays_key ON msdyn_paymentdays (msdyn_name, msdyn_company);
CREATE INDEX msdyn_paymentdays_msdyn_company ON msdyn_paymentdays (msdyn_company);

CREATE TABLE msdyn_paymentdaylines (
    msdyn_paymentdaylineid TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_paymentday       TEXT NOT NULL REFERENCES msdyn_paymentdays (msdyn_paymentdayid),
    msdyn_linenumber       INTEGER NOT NULL,
    msdyn_company          TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_frequency        INTEGER NOT NULL DEFAULT 806380000,
    msdyn_dayofweek        INTEGER NOT NULL DEFAULT 806380000,
    msdyn_dayofmonth       INTEGER
);
CREATE UNIQUE INDEX msdyn_paymentdaylines_key ON msdyn_paymentdaylines (msdyn_paymentday, msdyn_linenumber, msdyn_company);
CREATE INDEX msdyn_paymentdaylines_msdyn_company ON msdyn_paymentdaylines (msdyn_company);

CREATE TABLE msdyn_paymentschedules (
    msdyn_paymentscheduleid        TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_name                     VARCHAR(10) NOT NULL,
    msdyn_company                  TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_description              VARCHAR(100),
    msdyn_allocationmethod         INTEGER NOT NULL DEFAULT 806380000,
    msdyn_paymentfrequencyunit     INTEGER NOT NULL DEFAULT 806380001,
    msdyn_paymentfrequency         INTEGER,
    msdyn_numberofpayments         INTEGER,
    msdyn_fixedpaymentamount       DECIMAL(18,2),
    msdyn_minimumpaymentamount     DECIMAL(18,2),
    msdyn_salestaxallocationmethod INTEGER NOT NULL DEFAULT 806380000,
    msdyn_note                     VARCHAR(1000)
);
CREATE UNIQUE INDEX msdyn_paymentschedules_key ON msdyn_paymentschedules (msdyn_name, msdyn_company);
CREATE INDEX msdyn_paymentschedules_msdyn_company ON msdyn_paymentschedules (msdyn_company);

CREATE TABLE msdyn_paymentterms (
    msdyn_paymenttermid             TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_name                      VARCHAR(10) NOT NULL,
    msdyn_company                   TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_description               VARCHAR(100),
    msdyn_numberofmonth             INTEGER,
    msdyn_cutoffdayofmonth          INTEGER,
    msdyn_iscashpayment             BOOLEAN NOT NULL DEFAULT 0,
    msdyn_days                      INTEGER,
    msdyn_iscertifiedcompanycheck   BOOLEAN NOT NULL DEFAULT 0,
    msdyn_isdefaultpaymentterm      BOOLEAN NOT NULL DEFAULT 0,
    msdyn_creditcardpaymenttype     INTEGER NOT NULL DEFAULT 806380998,
    msdyn_creditcardcreditchecktype INTEGER NOT NULL DEFAULT 806380000,
    msdyn_paymentdayname            TEXT REFERENCES msdyn_paymentdays (msdyn_paymentdayid),
    msdyn_paymentmethodtype         INTEGER NOT NULL DEFAULT 806380991,
    msdyn_paymentschedulename       TEXT REFERENCES msdyn_paymentschedules (msdyn_paymentscheduleid)
);
CREATE UNIQUE INDEX msdyn_paymentterms_key ON msdyn_paymentterms (msdyn_name, msdyn_company);
CREATE INDEX msdyn_paymentterms_msdyn_company ON msdyn_paymentterms (msdyn_company);
CREATE INDEX msdyn_paymentterms_msdyn_paymentdayname ON msdyn_paymentterms (msdyn_paymentdayname);
CREATE INDEX msdyn_paymentterms_msdyn_paymentschedulename ON msdyn_paymentterms (msdyn_paymentschedulename);

CREATE TABLE msdyn_customerpaymentmethods (
    msdyn_customerpaymentmethodid             TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_name                                VARCHAR(10) NOT NULL,
    msdyn_company                             TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_accounttype                         INTEGER NOT NULL DEFAULT 806380000,
    msdyn_discountgraceperioddays             INTEGER,
    msdyn_bridgingpostingenabled              BOOLEAN NOT NULL DEFAULT 0,
    msdyn_issepa                              BOOLEAN NOT NULL DEFAULT 0,
    msdyn_lastfilenumber                      INTEGER,
    msdyn_lastfilenumbertoday                 INTEGER,
    msdyn_description                         VARCHAR(100),
    msdyn_paymenttype                         INTEGER NOT NULL DEFAULT 806380000,
    msdyn_invoiceupdate                       BOOLEAN NOT NULL DEFAULT 0,
    msdyn_paymentstatus                       INTEGER NOT NULL DEFAULT 806380000,
    msdyn_sumbyperiod                         INTEGER NOT NULL DEFAULT 806380000,
    msdyn_enablepostdatescheckclearingposting BOOLEAN NOT NULL DEFAULT 0,
    msdyn_billofexchangedrafttype             INTEGER NOT NULL DEFAULT 806380000,
    msdyn_directdebit                         BOOLEAN NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX msdyn_customerpaymentmethods_key ON msdyn_customerpaymentmethods (msdyn_name, msdyn_company);
CREATE INDEX msdyn_customerpaymentmethods_msdyn_company ON msdyn_customerpaymentmethods (msdyn_company);

CREATE TABLE msdyn_vendorpaymentmethods (
    msdyn_vendorpaymentmethodid         TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_name                          VARCHAR(10) NOT NULL,
    msdyn_company                       TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_description                   VARCHAR(100),
    msdyn_sumbyperiod                   INTEGER NOT NULL DEFAULT 806380000,
    msdyn_discountgraceperioddays       INTEGER,
    msdyn_paymentstatus                 INTEGER NOT NULL DEFAULT 806380000,
    msdyn_allowpaymentcopies            BOOLEAN NOT NULL DEFAULT 0,
    msdyn_paymenttype                   INTEGER NOT NULL DEFAULT 806380000,
    msdyn_lastfilenumber                INTEGER,
    msdyn_lastfilenumbertoday           INTEGER,
    msdyn_accounttype                   INTEGER NOT NULL DEFAULT 806380000,
    msdyn_bridgingposting               BOOLEAN NOT NULL DEFAULT 0,
    msdyn_postdatedcheckclearingposting BOOLEAN NOT NULL DEFAULT 0,
    msdyn_promissorynotedrafttype       INTEGER NOT NULL DEFAULT 806380000,
    msdyn_directdebit                   BOOLEAN NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX msdyn_vendorpaymentmethods_key ON msdyn_vendorpaymentmethods (msdyn_name, msdyn_company);
CREATE INDEX msdyn_vendorpaymentmethods_msdyn_company ON msdyn_vendorpaymentmethods (msdyn_company);

CREATE TABLE msdyn_customergroups (
    msdyn_customergroupid               TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_groupid                       VARCHAR(10) NOT NULL,
    msdyn_company                       TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_description                   VARCHAR(100),
    msdyn_issalestaxincludedinprice     BOOLEAN NOT NULL DEFAULT 0,
    msdyn_paymenttermid                 TEXT REFERENCES msdyn_paymentterms (msdyn_paymenttermid),
    msdyn_clearingperiodpaymenttermname TEXT REFERENCES msdyn_paymentterms (msdyn_paymenttermid)
);
CREATE UNIQUE INDEX msdyn_customergroups_key ON msdyn_customergroups (msdyn_groupid, msdyn_company);
CREATE INDEX msdyn_customergroups_msdyn_company ON msdyn_customergroups (msdyn_company);
CREATE INDEX msdyn_customergroups_msdyn_paymenttermid ON msdyn_customergroups (msdyn_paymenttermid);
CREATE INDEX msdyn_customergroups_msdyn_clearingperiodpaymenttermname ON msdyn_customergroups (msdyn_clearingperiodpaymenttermname);

CREATE TABLE msdyn_vendorgroups (
    msdyn_vendorgroupid                 TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_vendorgroup                   VARCHAR(10) NOT NULL,
    msdyn_company                       TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_paymentterms                  TEXT REFERENCES msdyn_paymentterms (msdyn_paymenttermid),
    msdyn_description                   VARCHAR(100),
    msdyn_clearingperiodpaymentpermname TEXT REFERENCES msdyn_paymentterms (msdyn_paymenttermid)
);
CREATE UNIQUE INDEX msdyn_vendorgroups_key ON msdyn_vendorgroups (msdyn_vendorgroup, msdyn_company);
CREATE INDEX msdyn_vendorgroups_msdyn_company ON msdyn_vendorgroups (msdyn_company);
CREATE INDEX msdyn_vendorgroups_msdyn_paymentterms ON msdyn_vendorgroups (msdyn_paymentterms);
CREATE INDEX msdyn_vendorgroups_msdyn_clearingperiodpaymentpermname ON msdyn_vendorgroups (msdyn_clearingperiodpaymentpermname);

CREATE TABLE msdyn_vendors (
    msdyn_vendorid                   TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_vendoraccountnumber        VARCHAR(20) NOT NULL,
    msdyn_company                    TEXT NOT NULL REFERENCES cdm_companies (cdm_companyid),
    msdyn_vendorgroupid              TEXT REFERENCES msdyn_vendorgroups (msdyn_vendorgroupid),
    msdyn_isperson                   BOOLEAN NOT NULL DEFAULT 0,
    msdyn_vendorcreditlimit          DECIMAL(18,2),
    msdyn_isforeignentity            BOOLEAN NOT NULL DEFAULT 0,
    msdyn_isonetimevendor            BOOLEAN NOT NULL DEFAULT 0,
    msdyn_creditrating               VARCHAR(10),
    msdyn_dunsnumber                 VARCHAR(9),
    msdyn_ethnicorigin               VARCHAR(10),
    msdyn_ourvendoraccountnumber     VARCHAR(20),
    msdyn_paymentid                  VARCHAR(20),
    msdyn_primarycontacturl          VARCHAR(255),
    msdyn_defaultpaymentdayname      TEXT REFERENCES msdyn_paymentdays (msdyn_paymentdayid),
    msdyn_paymentschedule            TEXT REFERENCES msdyn_paymentschedules (msdyn_paymentscheduleid),
    msdyn_paymentterms               TEXT REFERENCES msdyn_paymentterms (msdyn_paymenttermid),
    msdyn_hasonlytakenbids           BOOLEAN NOT NULL DEFAULT 0,
    msdyn_isminorityowned            BOOLEAN NOT NULL DEFAULT 0,
    msdyn_isvendorlocallyowned       BOOLEAN NOT NULL DEFAULT 0,
    msdyn_isserviceveteranowned      BOOLEAN NOT NULL DEFAULT 0,
    msdyn_ownerisdisabled            BOOLEAN NOT NULL DEFAULT 0,
    msdyn_womanowner                 BOOLEAN NOT NULL DEFAULT 0,
    msdyn_numberofemployees          INTEGER,
    msdyn_vendoronholdreleasedate    DATETIME,
    msdyn_partyid                    TEXT REFERENCES msdyn_parties (msdyn_partyid),
    msdyn_onholdstatus               INTEGER NOT NULL DEFAULT 806380000,
    msdyn_currencycode               TEXT REFERENCES transactioncurrencies (transactioncurrencyid),
    msdyn_isvendorlocatedinhubzone   BOOLEAN NOT NULL DEFAULT 0,
    msdyn_vendorpaymentmethod        TEXT REFERENCES msdyn_vendorpaymentmethods (msdyn_vendorpaymentmethodid),
    msdyn_invoicevendoraccountnumber TEXT REFERENCES msdyn_vendors (msdyn_vendorid),
    msdyn_priceincludessalestax      BOOLEAN NOT NULL DEFAULT 0,
    msdyn_taxgroup                   TEXT REFERENCES msdyn_taxgroups (msdyn_taxgroupid)
);
CREATE UNIQUE INDEX msdyn_vendors_key ON msdyn_vendors (msdyn_vendoraccountnumber, msdyn_company);
CREATE INDEX msdyn_vendors_msdyn_company ON msdyn_vendors (msdyn_company);
CREATE INDEX msdyn_vendors_msdyn_vendorgroupid ON msdyn_vendors (msdyn_vendorgroupid);
CREATE INDEX msdyn_vendors_msdyn_defaultpaymentdayname ON msdyn_vendors (msdyn_defaultpaymentdayname);
CREATE INDEX msdyn_vendors_msdyn_paymentschedule ON msdyn_vendors (msdyn_paymentschedule);
CREATE INDEX msdyn_vendors_msdyn_paymentterms ON msdyn_vendors (msdyn_paymentterms);
CREATE INDEX msdyn_vendors_msdyn_partyid ON msdyn_vendors (msdyn_partyid);
CREATE INDEX msdyn_vendors_msdyn_currencycode ON msdyn_vendors (msdyn_currencycode);
CREATE INDEX msdyn_vendors_msdyn_vendorpaymentmethod ON msdyn_vendors (msdyn_vendorpaymentmethod);
CREATE INDEX msdyn_vendors_msdyn_invoicevendoraccountnumber ON msdyn_vendors (msdyn_invoicevendoraccountnumber);
CREATE INDEX msdyn_vendors_msdyn_taxgroup ON msdyn_vendors (msdyn_taxgroup);

CREATE TABLE accounts (
    accountid                    TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    accountnumber                VARCHAR(20),
    msdyn_company                TEXT REFERENCES cdm_companies (cdm_companyid),
    creditlimit                  DECIMAL(18,2),
    transactioncurrencyid        TEXT REFERENCES transactioncurrencies (transactioncurrencyid),
    description                  VARCHAR(2000),
    msdyn_creditlimitismandatory BOOLEAN NOT NULL DEFAULT 0,
    msdyn_creditrating           VARCHAR(10),
    msdyn_customergroupid        TEXT REFERENCES msdyn_customergroups (msdyn_customergroupid),
    msdyn_identificationnumber   VARCHAR(50),
    msdyn_billingaccount         TEXT REFERENCES accounts (accountid),
    msdyn_onetimecustomer        BOOLEAN NOT NULL DEFAULT 0,
    msdyn_onholdstatus           INTEGER NOT NULL DEFAULT 806380000,
    msdyn_partycountry           VARCHAR(10),
    msdyn_partystateprovince     VARCHAR(10),
    msdyn_paymentday             TEXT REFERENCES msdyn_paymentdays (msdyn_paymentdayid),
    msdyn_customerpaymentmethod  TEXT REFERENCES msdyn_customerpaymentmethods (msdyn_customerpaymentmethodid),
    msdyn_paymentschedule        TEXT REFERENCES msdyn_paymentschedules (msdyn_paymentscheduleid),
    msdyn_paymentterm            TEXT REFERENCES msdyn_paymentterms (msdyn_paymenttermid),
    msdyn_paymenttermsbasedays   INTEGER,
    msdyn_taxexemptnumber        VARCHAR(20),
    msdyn_vendor                 TEXT REFERENCES msdyn_vendors (msdyn_vendorid),
    customertypecode             INTEGER,
    msdyn_partyid                TEXT REFERENCES msdyn_parties (msdyn_partyid),
    msdyn_salestaxgroup          TEXT REFERENCES msdyn_taxgroups (msdyn_taxgroupid),
    address1_city                VARCHAR(80)
);
CREATE UNIQUE INDEX accounts_key ON accounts (accountnumber, msdyn_company);
CREATE INDEX accounts_msdyn_company ON accounts (msdyn_company);
CREATE INDEX accounts_transactioncurrencyid ON accounts (transactioncurrencyid);
CREATE INDEX accounts_msdyn_customergroupid ON accounts (msdyn_customergroupid);
CREATE INDEX accounts_msdyn_billingaccount ON accounts (msdyn_billingaccount);
CREATE INDEX accounts_msdyn_paymentday ON accounts (msdyn_paymentday);
CREATE INDEX accounts_msdyn_customerpaymentmethod ON accounts (msdyn_customerpaymentmethod);
CREATE INDEX accounts_msdyn_paymentschedule ON accounts (msdyn_paymentschedule);
CREATE INDEX accounts_msdyn_paymentterm ON accounts (msdyn_paymentterm);
CREATE INDEX accounts_msdyn_vendor ON accounts (msdyn_vendor);
CREATE INDEX accounts_msdyn_partyid ON accounts (msdyn_partyid);
CREATE INDEX accounts_msdyn_salestaxgroup ON accounts (msdyn_salestaxgroup);

CREATE TABLE contacts (
    contactid                   TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    msdyn_contactpersonid       VARCHAR(20),
    msdyn_company               TEXT REFERENCES cdm_companies (cdm_companyid),
    msdyn_sellable              BOOLEAN NOT NULL DEFAULT 0,
    msdyn_partyid               TEXT REFERENCES msdyn_parties (msdyn_partyid),
    msdyn_customergroupid       TEXT REFERENCES msdyn_customergroups (msdyn_customergroupid),
    msdyn_identificationnumber  VARCHAR(50),
    msdyn_partycountry          VARCHAR(10),
    msdyn_partystateprovince    VARCHAR(10),
    transactioncurrencyid       TEXT REFERENCES transactioncurrencies (transactioncurrencyid),
    description                 VARCHAR(2000),
    msdyn_paymentday            TEXT REFERENCES msdyn_paymentdays (msdyn_paymentdayid),
    msdyn_paymentschedule       TEXT REFERENCES msdyn_paymentschedules (msdyn_paymentscheduleid),
    msdyn_customerpaymentmethod TEXT REFERENCES msdyn_customerpaymentmethods (msdyn_customerpaymentmethodid),
    msdyn_salestaxgroup         TEXT REFERENCES msdyn_taxgroups (msdyn_taxgroupid),
    msdyn_paymentterms          TEXT REFERENCES msdyn_paymentterms (msdyn_paymenttermid),
    address1_city               VARCHAR(80)
);
CREATE UNIQUE INDEX contacts_key ON contacts (msdyn_contactpersonid, msdyn_company);
CREATE INDEX contacts_msdyn_company ON contacts (msdyn_company);
CREATE INDEX contacts_msdyn_partyid ON contacts (msdyn_partyid);
CREATE INDEX contacts_msdyn_customergroupid ON contacts (msdyn_customergroupid);
CREATE INDEX contacts_transactioncurrencyid ON contacts (transactioncurrencyid);
CREATE INDEX contacts_msdyn_paymentday ON contacts (msdyn_paymentday);
CREATE INDEX contacts_msdyn_paymentschedule ON contacts (msdyn_paymentschedule);
CREATE INDEX contacts_msdyn_customerpaymentmethod ON contacts (msdyn_customerpaymentmethod);
CREATE INDEX contacts_msdyn_salestaxgroup ON contacts (msdyn_salestaxgroup);
CREATE INDEX contacts_msdyn_paymentterms ON contacts (msdyn_paymentterms);
