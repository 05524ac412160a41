"""How the right-hand database of the demo says what the left-hand one says.

Only for filling the databases.  It knows nothing of the table maps on purpose: the maps are held against it by test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Meaning: TypeAlias = str | tuple[str, Mapping[str, int]] | tuple[str, str]
"""A left-hand column; with the numbers of its elements where it is a choice, with a table where it is a lookup."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A right-hand table: its id, the left-hand columns of its key, and what each of its columns means.

    ``fixed`` are columns that hold the same in all records.
    """

    id: str
    key: tuple[str, ...]
    columns: Mapping[str, Meaning]
    company: bool = True
    fixed: Mapping[str, int | str] = field(default_factory=dict)


def _choices(first: int, elements: str) -> dict[str, int]:
    return {element: first + number for number, element in enumerate(elements.split())}


_FLAG = {"no": 0, "yes": 1}
_MONTH = _choices(0, "none january february march april may june july august september october november december")
_ON_HOLD = _choices(806380000, "no invoice all payment requisition never")
_SUM_BY = _choices(806380000, "invoice transDate week total")
_LANGUAGE = _choices(
    192350000,
    "ar ar-ae cs da de de-at de-ch en-au en-ca en-gb en-ie en-in en-my en-nz en-sg en-us en-za es es-mx et fi fr fr-be "
    "fr-ca fr-ch hu is it it-ch ja lt lv nb-no nl nl-be pl pt-br ru sv th tr zh-hans",
)

_CUSTOMER: dict[str, Meaning] = {
    "description": "SALESMEMO",
    "address1_city": "ADDRESSCITY",
    "transactioncurrencyid": ("SALESCURRENCYCODE", "transactioncurrencies"),
    "msdyn_customergroupid": ("CUSTOMERGROUPID", "msdyn_customergroups"),
    "msdyn_identificationnumber": "IDENTIFICATIONNUMBER",
    "msdyn_partycountry": "PARTYCOUNTRY",
    "msdyn_partystateprovince": "PARTYSTATE",
    "msdyn_paymentday": ("PAYMENTDAY", "msdyn_paymentdays"),
    "msdyn_customerpaymentmethod": ("PAYMENTMETHOD", "msdyn_customerpaymentmethods"),
    "msdyn_paymentschedule": ("PAYMENTSCHEDULE", "msdyn_paymentschedules"),
    "msdyn_salestaxgroup": ("SALESTAXGROUP", "msdyn_taxgroups"),
    "msdyn_partyid": ("PARTYNUMBER", "msdyn_parties"),
}

COUNTERPARTS: dict[str, Counterpart] = {
    "cdm_companies": Counterpart(
        "cdm_companyid",
        ("LEGALENTITYID",),
        {"cdm_companycode": "LEGALENTITYID", "cdm_name": "NAME"},
        company=False,
    ),
    "transactioncurrencies": Counterpart(
        "transactioncurrencyid",
        ("CURRENCYCODE",),
        {"isocurrencycode": "CURRENCYCODE", "currencyname": "NAME", "currencysymbol": "SYMBOL"},
        company=False,
        fixed={"exchangerate": "1"},
    ),
    "uoms": Counterpart(
        "uomid",
        ("UNITSYMBOL",),
        {
            "msdyn_symbol": "UNITSYMBOL",
            "name": "UNITSYMBOL",
            "msdyn_description": "UNITDESCRIPTION",
            "msdyn_externalunitclassname": "UNITCLASS",
            "msdyn_decimalprecision": "DECIMALPRECISION",
            "msdyn_isbaseunit": ("ISBASEUNIT", _FLAG),
            "msdyn_issystemunit": ("ISSYSTEMUNIT", _FLAG),
            "msdyn_systemofunits": ("SYSTEMOFUNITS", _choices(192350000, "none metric us")),
        },
        company=False,
    ),
    "msdyn_parties": Counterpart(
        "msdyn_partyid",
        ("PARTYNUMBER",),
        {
            "msdyn_partynumber": "PARTYNUMBER",
            "msdyn_partytype": ("PARTYTYPE", _choices(192350000, "none person organization legalEntity team")),
            "msdyn_namealias": "NAMEALIAS",
            "msdyn_nickname": "KNOWNAS",
            "msdyn_language": ("LANGUAGEID", _LANGUAGE),
            "msdyn_organizationname": "ORGANIZATIONNAME",
            "msdyn_organizationabccode": ("ORGANIZATIONABCCODE", _choices(192350000, "a b c none")),
            "msdyn_numberofemployees": "ORGANIZATIONNUMOFEMPLOYEES",
            "msdyn_organizationnumber": "ORGANIZATIONNUMBER",
            "msdyn_firstname": "PERSONFIRSTNAME",
            "msdyn_lastname": "PERSONLASTNAME",
            "msdyn_initials": "PERSONINITIALS",
            "msdyn_professionaltitle": "PERSONPROFESSIONALTITLE",
            "msdyn_gender": ("PERSONGENDER", {"male": 1, "female": 2, "non-Specific": 192350000, "unknown": 192350001}),
            "msdyn_birthday": "PERSONBIRTHDAY",
            "msdyn_birthmonth": ("PERSONBIRTHMONTH", _MONTH),
            "msdyn_birthyear": "PERSONBIRTHYEAR",
        },
        company=False,
    ),
    "msdyn_taxgroups": Counterpart(
        "msdyn_taxgroupid", ("TAXGROUPCODE",), {"msdyn_name": "TAXGROUPCODE", "msdyn_description": "DESCRIPTION"}
    ),
    "msdyn_paymentdays": Counterpart(
        "msdyn_paymentdayid", ("NAME",), {"msdyn_name": "NAME", "msdyn_description": "DESCRIPTION"}
    ),
    "msdyn_paymentdaylines": Counterpart(
        "msdyn_paymentdaylineid",
        ("NAME", "LINENUMBER"),
        {
            "msdyn_paymentday": ("NAME", "msdyn_paymentdays"),
            "msdyn_linenumber": "LINENUMBER",
            "msdyn_frequency": ("FREQUENCY", _choices(806380000, "week month")),
            "msdyn_dayofweek": (
                "DAYOFWEEK",
                _choices(806380000, "none monday tuesday wednesday thursday friday saturday sunday"),
            ),
            "msdyn_dayofmonth": "DAYOFMONTH",
        },
    ),
    "msdyn_paymentschedules": Counterpart(
        "msdyn_paymentscheduleid",
        ("NAME",),
        {
            "msdyn_name": "NAME",
            "msdyn_description": "DESCRIPTION",
            "msdyn_allocationmethod": (
                "ALLOCATIONMETHOD",
                _choices(806380000, "total amountByPayment numOfPayment specified"),
            ),
            "msdyn_paymentfrequencyunit": ("PAYMENTFREQUENCYUNITS", _choices(806380000, "day month year")),
            "msdyn_paymentfrequency": "PAYMENTFREQUENCY",
            "msdyn_numberofpayments": "NUMBEROFPAYMENTS",
            "msdyn_fixedpaymentamount": "FIXEDPAYMENTAMOUNT",
            "msdyn_minimumpaymentamount": "MINIMUMPAYMENTAMOUNT",
            "msdyn_salestaxallocationmethod": (
                "SALESTAXALLOCATIONMETHOD",
                _choices(806380000, "proportional firstRate lastRate"),
            ),
            "msdyn_note": "NOTES",
        },
    ),
    "msdyn_paymentterms": Counterpart(
        "msdyn_paymenttermid",
        ("NAME",),
        {
            "msdyn_name": "NAME",
            "msdyn_description": "DESCRIPTION",
            "msdyn_paymentmethodtype": (
                "PAYMENTMETHODTYPE",
                _choices(806380991, "net currentMth currentQuart currentYear currentWeek cod cutOffDate"),
            ),
            "msdyn_days": "NUMBEROFDAYS",
            "msdyn_numberofmonth": "NUMBEROFMONTHS",
            "msdyn_cutoffdayofmonth": "CUTOFFDAYOFMONTH",
            "msdyn_paymentdayname": ("PAYMENTDAYNAME", "msdyn_paymentdays"),
            "msdyn_paymentschedulename": ("PAYMENTSCHEDULENAME", "msdyn_paymentschedules"),
            "msdyn_iscashpayment": ("ISCASHPAYMENT", _FLAG),
            "msdyn_isdefaultpaymentterm": ("ISDEFAULTPAYMENTTERM", _FLAG),
            "msdyn_creditcardpaymenttype": ("CREDITCARDPAYMENTTYPE", _choices(806380998, "na creditCard")),
        },
    ),
    "msdyn_customerpaymentmethods": Counterpart(
        "msdyn_customerpaymentmethodid",
        ("NAME",),
        {
            "msdyn_name": "NAME",
            "msdyn_description": "DESCRIPTION",
            "msdyn_paymenttype": (
                "PAYMENTTYPE",
                _choices(806380000, "other electronicPayment check billOfExchange creditCard"),
            ),
            "msdyn_accounttype": ("ACCOUNTTYPE", _choices(806380000, "ledger cust vend project fixedassets bank")),
            "msdyn_paymentstatus": ("PAYMENTSTATUS", _choices(806380000, "none sent recieved confirmed rejected")),
            "msdyn_sumbyperiod": ("SUMBYPERIOD", _SUM_BY),
            "msdyn_discountgraceperioddays": "DISCOUNTGRACEPERIODDAYS",
            "msdyn_directdebit": ("DIRECTDEBIT", _FLAG),
            "msdyn_issepa": ("ISSEPA", _FLAG),
            "msdyn_billofexchangedrafttype": (
                "BILLOFEXCHANGEDRAFTTYPE",
                _choices(806380000, "nodraft noacceptance acceptance promissory bankAcceptance"),
            ),
        },
    ),
    "msdyn_vendorpaymentmethods": Counterpart(
        "msdyn_vendorpaymentmethodid",
        ("NAME",),
        {
            "msdyn_name": "NAME",
            "msdyn_description": "DESCRIPTION",
            "msdyn_paymenttype": ("PAYMENTTYPE", _choices(806380000, "blank check electronicPayment promissoryNote")),
            "msdyn_accounttype": ("ACCOUNTTYPE", _choices(806380000, "ledger cust vend project fixedAssets bank")),
            "msdyn_paymentstatus": ("PAYMENTSTATUS", _choices(806380000, "none sent recieved approved rejected")),
            "msdyn_sumbyperiod": ("SUMBYPERIOD", _SUM_BY),
            "msdyn_discountgraceperioddays": "DISCOUNTGRACEPERIODDAYS",
            "msdyn_allowpaymentcopies": ("ALLOWPAYMENTCOPIES", _FLAG),
            "msdyn_promissorynotedrafttype": (
                "PROMISSORYNOTEDRAFTTYPE",
                _choices(806380000, "noDraft noAcceptance acceptance promissory bankAcceptance"),
            ),
        },
    ),
    "msdyn_customergroups": Counterpart(
        "msdyn_customergroupid",
        ("CUSTOMERGROUPID",),
        {
            "msdyn_groupid": "CUSTOMERGROUPID",
            "msdyn_description": "DESCRIPTION",
            "msdyn_paymenttermid": ("PAYMENTTERMID", "msdyn_paymentterms"),
            "msdyn_clearingperiodpaymenttermname": ("CLEARINGPERIODPAYMENTTERMNAME", "msdyn_paymentterms"),
            "msdyn_issalestaxincludedinprice": ("ISSALESTAXINCLUDEDINPRICE", _FLAG),
        },
    ),
    "msdyn_vendorgroups": Counterpart(
        "msdyn_vendorgroupid",
        ("VENDORGROUPID",),
        {
            "msdyn_vendorgroup": "VENDORGROUPID",
            "msdyn_description": "DESCRIPTION",
            "msdyn_paymentterms": ("DEFAULTPAYMENTTERMNAME", "msdyn_paymentterms"),
            "msdyn_clearingperiodpaymentpermname": ("CLEARINGPERIODPAYMENTTERMNAME", "msdyn_paymentterms"),
        },
    ),
    "msdyn_vendors": Counterpart(
        "msdyn_vendorid",
        ("VENDORACCOUNTNUMBER",),
        {
            "msdyn_vendoraccountnumber": "VENDORACCOUNTNUMBER",
            "msdyn_vendorgroupid": ("VENDORGROUPID", "msdyn_vendorgroups"),
            "msdyn_isperson": ("VENDORPARTYTYPE", {"organization": 0, "person": 1}),
            "msdyn_vendorcreditlimit": "CREDITLIMIT",
            "msdyn_creditrating": "CREDITRATING",
            "msdyn_dunsnumber": "DUNSNUMBER",
            "msdyn_ourvendoraccountnumber": "OURACCOUNTNUMBER",
            "msdyn_primarycontacturl": "PRIMARYURL",
            "msdyn_paymentterms": ("DEFAULTPAYMENTTERMSNAME", "msdyn_paymentterms"),
            "msdyn_vendorpaymentmethod": ("DEFAULTVENDORPAYMENTMETHODNAME", "msdyn_vendorpaymentmethods"),
            "msdyn_currencycode": ("CURRENCYCODE", "transactioncurrencies"),
            "msdyn_taxgroup": ("SALESTAXGROUPCODE", "msdyn_taxgroups"),
            "msdyn_numberofemployees": "ORGANIZATIONEMPLOYEEAMOUNT",
            "msdyn_onholdstatus": ("ONHOLDSTATUS", _ON_HOLD),
            "msdyn_vendoronholdreleasedate": "VENDORHOLDRELEASEDATE",
            "msdyn_isforeignentity": ("ISFOREIGNENTITY", _FLAG),
            "msdyn_womanowner": ("ISWOMANOWNER", _FLAG),
            "msdyn_invoicevendoraccountnumber": ("INVOICEVENDORACCOUNTNUMBER", "msdyn_vendors"),
            "msdyn_partyid": ("VENDORPARTYNUMBER", "msdyn_parties"),
        },
    ),
    "accounts": Counterpart(
        "accountid",
        ("CUSTOMERACCOUNT",),
        {
            "accountnumber": "CUSTOMERACCOUNT",
            **_CUSTOMER,
            "creditlimit": "CREDITLIMIT",
            "msdyn_creditlimitismandatory": ("CREDITLIMITISMANDATORY", _FLAG),
            "msdyn_creditrating": "CREDITRATING",
            "msdyn_billingaccount": ("INVOICEACCOUNT", "accounts"),
            "msdyn_onetimecustomer": ("ISONETIMECUSTOMER", _FLAG),
            "msdyn_onholdstatus": ("ONHOLDSTATUS", _ON_HOLD),
            "msdyn_paymentterm": ("PAYMENTTERMS", "msdyn_paymentterms"),
            "msdyn_paymenttermsbasedays": "PAYMENTTERMSBASEDAYS",
            "msdyn_taxexemptnumber": "TAXEXEMPTNUMBER",
            "msdyn_vendor": ("VENDORACCOUNT", "msdyn_vendors"),
        },
        fixed={"customertypecode": 3},
    ),
    "contacts": Counterpart(
        "contactid",
        ("CUSTOMERACCOUNT",),
        {
            "msdyn_contactpersonid": "CUSTOMERACCOUNT",
            **_CUSTOMER,
            "msdyn_paymentterms": ("PAYMENTTERMS", "msdyn_paymentterms"),
        },
        fixed={"msdyn_sellable": 1},
    ),
}
"""By right-hand table; a table stands behind those that it refers to."""
